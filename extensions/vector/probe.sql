-- One row, one boolean: does it work?
select '[1,0]'::@extschema@.vector operator(@extschema@.<=>) '[0,1]'::@extschema@.vector = 1 as works;
