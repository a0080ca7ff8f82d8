cimport cython

from node.pool.core cimport PoolCore
from node.server.connection cimport ServerConnection
from node.stats.pool_counters cimport PoolCounters

cdef class Lending:
    cdef public PoolCore core
    cdef public PoolCounters counters
    cdef public object clock, lanes
    cdef public bint closed
    cdef public double check_after_s

    @cython.locals(server=ServerConnection)
    cpdef ServerConnection acquire(self, double now)
    @cython.locals(server=ServerConnection)
    cpdef ServerConnection acquire_like(self, object parameters, double now)
    cdef bint is_cold(self, ServerConnection server, double now)
    @cython.locals(core=PoolCore)
    cpdef take_back(self, ServerConnection server, double now)
