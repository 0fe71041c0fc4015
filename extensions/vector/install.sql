-- Runs only when the extension is not there yet and the role may create it.
create extension if not exists vector;
