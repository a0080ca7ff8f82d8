cdef class Services:
    cdef public object clock, spawn, shapes, prepared, database, slow, limits, node, decisions
    cdef public object load_layout, read_catalog, want_layout, schema_changed, resolve_later
    cdef public long long epoch
    cdef public bint drops_refused_clients, closing
    cdef public dict sessions, _tasks, _fed
