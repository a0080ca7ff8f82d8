cimport cython

from node.pool.core cimport PoolCore
from node.pool.lane cimport Lane, LaneOwner
from node.pool.lending cimport Lending
from node.server.connection cimport ServerConnection

cdef class Lanes(LaneOwner):
    cdef public Lending pool
    cdef public object count, later
    cdef public PoolCore core
    cdef public list active

    @cython.locals(core=PoolCore, active=list, lane=Lane, best=Lane, depth=Py_ssize_t, boardable=Py_ssize_t,
                   server=ServerConnection)
    cpdef Lane choose(self, object parameters, double now)
    cpdef Lane enter(self, object parameters, double now)
    @cython.locals(entered=Lane)
    cpdef Lane adopt(self, ServerConnection server)
    cpdef invite(self, Lane lane)
    cpdef leave(self, Lane lane, double now)
    @cython.locals(active=list)
    cpdef forget(self, Lane lane)
    cpdef watch(self)
