-- Runs only when the extension is not there yet and the role may create it.
create extension if not exists pg_stat_statements;
