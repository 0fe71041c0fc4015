-- Family: schemas.  The installer created them; here they get their comments.

comment on schema pgstack is
'Semantic search, embeddings and model calls as SQL functions. Stable: what is here keeps its name and signature.';

comment on schema _pgstack is
'Private to pgstack: may change in any release. Use the functions in schema pgstack.';
