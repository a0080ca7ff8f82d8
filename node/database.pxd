from node.client.weight cimport Weights
from node.gate cimport Gate
from node.pool.lending cimport Lending

cdef class Layout:
    cdef public object catalog, spreads, loading, waiting_since
    cdef public bint two_phase, loaded, two_phase_told, sharing, wanted
    cdef public long long generation, failures
    cdef public double read_at, retry_at
    cdef public Weights weights


cdef class Database:
    cdef public tuple balancers, lone
    cdef public object name, user, mode, topology, prepared_level, read_write_strategy, two_phase
    cdef public long long epoch
    cdef public Gate gate
    cdef public Layout layout
    cdef public Py_ssize_t prepared_limit
    cdef public bint cross_shard_disabled, expanded_explain, routed
    cdef public double query_timeout_s, idle_in_transaction_timeout_s, client_idle_timeout_s
    cdef public Lending only
