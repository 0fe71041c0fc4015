-- One row, one boolean: does it work?
select @extschema@.similarity('pgstack', 'pgstack') = 1 as works;
