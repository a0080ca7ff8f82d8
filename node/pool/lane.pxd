cimport cython

from node.pool.rider cimport Rider
from node.server.connection cimport Owner, ServerConnection
from node.stats.pool_counters cimport PoolCounters
from node.wire.pipeline cimport Pipeline

cdef class LaneOwner:
    cdef public PoolCounters counters
    cdef public object soon, clock
    cdef public bint coalesces, watching
    cdef public Py_ssize_t prepared_limit
    cdef public long long ended

    cpdef invite(self, Lane lane)
    cpdef watch(self)
    cpdef leave(self, Lane lane, double now)
    cpdef forget(self, Lane lane)


cdef class Lane(Owner):
    cdef public LaneOwner lanes
    cdef public ServerConnection server
    cdef public Pipeline pipeline
    cdef public object parameters
    cdef public Py_ssize_t depth
    cdef public bint open, heard, said, reading_paused
    cdef public object front
    cdef public double front_since
    cdef public Py_ssize_t front_bytes
    cdef public long long units, errors
    cdef public list outbox, answering, parting
    cdef public dict turn, unsure
    cdef public object known

    cpdef enter(self)
    @cython.locals(pipeline=Pipeline, ahead=bytes, counters=PoolCounters)
    cpdef board(self, Rider rider, bytes data, long long count, object prepared, double now)
    cpdef flush(self)
    cpdef send(self, bytes data)
    cpdef bytes ahead(self, Rider rider, object prepared)
    @cython.locals(pipeline=Pipeline, ended="long long", now=double, took_s=double, size=Py_ssize_t, rider=Rider)
    cpdef from_server(self, ServerConnection server, bytes data)
