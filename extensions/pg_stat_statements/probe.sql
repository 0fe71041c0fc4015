-- One row, one boolean: does it work?  Raises when the server did not preload it.
select count(*) >= 0 as works from (select from @extschema@.pg_stat_statements limit 1) as s;
