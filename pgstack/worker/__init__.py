"""The worker: moves text to a model server and vectors back.

It decides nothing.  SQL functions hand it work under a lease, it calls the model with
no transaction open, and SQL functions take the result.  Any number of workers may run;
one that dies is found out by its lost connection, and what it held is done by others.

    app      connections, tasks, start and stop
    bridge   questions from SQL: embed(), generate(), ...
    drain    vectorizers: claim, load, embed, complete
    index    builds vector indexes
"""
