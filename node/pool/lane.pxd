cimport cython

from node.pool.core cimport PoolCore
from node.pool.lending cimport Lending
from node.server.connection cimport Owner, ServerConnection
from node.stats.pool_counters cimport PoolCounters
from node.wire.pipeline cimport Pipeline

cdef class Rider(Owner):
    cdef public bint writing_paused

    cpdef bint would_share(self, object parameters)
    cpdef invited(self, Lane lane)
    cpdef lane_bytes(self, bytes data)
    cpdef lane_reply(self, bytes data, double now, double took_s, Py_ssize_t size)
    cpdef lane_error(self)
    cpdef put_off(self, bint blamed)
    cpdef lane_lost(self, object fault, bint said)


cdef class Lane(Owner):
    cdef public Lanes lanes
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


cdef class Lanes:
    cdef public Lending pool
    cdef public object count, soon, later, clock
    cdef public PoolCore core
    cdef public bint coalesces, watching
    cdef public Py_ssize_t prepared_limit
    cdef public list active
    cdef public long long ended
    cdef public PoolCounters counters

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
