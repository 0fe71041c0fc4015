-- One row, one boolean: does it work?
select @extschema@.dblink_get_connections() is null or true as works;
