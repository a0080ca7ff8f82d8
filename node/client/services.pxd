from node.client.shape cimport Shapes

cdef class Services:
    cdef public Shapes shapes
    cdef public object clock, spawn, prepared, database, slow, limits, node, decisions
    cdef public object load_layout, read_catalog, want_layout, schema_changed, resolve_later
    cdef public long long epoch
    cdef public double lag_s
    cdef public bint drops_refused_clients, closing
    cdef public dict sessions, _tasks, _fed
