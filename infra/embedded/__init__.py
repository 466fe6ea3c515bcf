"""The embedded stack: PostgreSQL, Valkey, web, worker and beat as ordinary processes of one user.

Everything comes from pip, nothing needs root or Docker, all data is under `var/`. Standard library and psycopg only.

    setup.py      builds the two Python environments and the front end
    layout.py     which file lies where under var/, free ports, the environment of the children
    process.py    one child process: started, logged, stopped
    postgres.py   the database server          valkey.py   the broker
    services.py   both together, for tests     stack.py    all five, watched and restarted
"""
