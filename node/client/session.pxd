cimport cython

from node.client.riding cimport Riding
from node.client.shape cimport Shape
from node.database cimport Database
from node.gate cimport Gate
from node.pool.lending cimport Lending
from node.server.connection cimport ServerConnection
from node.stats.pool_counters cimport PoolCounters
from node.wire.pipeline cimport Pipeline, Requests

cdef int _BIND, _CLOSE, _COPY_DATA, _COPY_DONE, _COPY_FAIL, _DESCRIBE, _EXECUTE, _FLUSH, _FUNCTION_CALL, _PARSE, _QUERY
cdef int _SYNC, _TERMINATE, _TX_IDLE, _TX_OPEN, _TX_FAILED, _IDLE, _ROOM, _FULL
cdef int _NOTHING, _TOO_LONG, _READY, _WAITING, _SLOW, _CLOSED, _RIDING
cdef Py_ssize_t _SMALL_BYTES, _KEPT_BYTES

cdef bint _begins(int letter) noexcept

cdef class Session(Riding):
    cdef public object id, account, shell
    cdef public Gate gate
    cdef public ServerConnection server
    cdef public object waiter
    cdef public bint entered, discarding
    cdef public object startup, application_name, tracked, reset_settings
    cdef public bint must_ask, redefined, torn_copy, asking
    cdef public long long errors_before
    cdef public bint changed_schema
    cdef public object shard, links, rides, wrote, story, cursors, portals, catalog, hints, unit_role
    cdef public bint fresh, begun
    cdef public bytes kept, withheld
    cdef public Py_ssize_t kept_at, kept_end
    cdef public long long kept_units
    cdef public int moved
    cdef public Py_ssize_t stop_at
    cdef public object pid
    cdef public bytes secret
    cdef public double connected_at, linked_at, wait_time_s
    cdef public long long transactions_2pc, bytes_received, bytes_before
    cdef public object on_closed, on_resumed

    cpdef from_client(self, bytes data)
    cpdef advance(self)
    @cython.locals(requests=Requests, letter=int, database=Database, pool=Lending)
    cpdef bint begin(self)
    cpdef bint enter(self)
    cpdef begin_routed(self)
    cpdef bint unlinked(self, int letter) except -1
    @cython.locals(server=ServerConnection)
    cpdef bint acquire(self, Lending pool)
    cpdef bint link(self, ServerConnection server)
    @cython.locals(requests=Requests, server=ServerConnection, pipeline=Pipeline, buffer=bytes, letter=int,
                   first=Py_ssize_t, run=Py_ssize_t, upto=Py_ssize_t, start=Py_ssize_t, end=Py_ssize_t,
                   stop_at=Py_ssize_t, again=bint, large=bint, shape=Shape,
                   replacement=bytes, pieces=list)
    cpdef bint pump(self)
    @cython.locals(server=ServerConnection, data=bytes)
    cpdef Py_ssize_t flush(self, bytes buffer, Py_ssize_t run, Py_ssize_t upto, Py_ssize_t next_run, list pieces)
    @cython.locals(pipeline=Pipeline)
    cpdef from_server(self, ServerConnection server, bytes data)
    @cython.locals(server=ServerConnection, pipeline=Pipeline, now=double, took=double, pool=Lending,
                   counters=PoolCounters)
    cpdef settle(self)
    cpdef leave(self)
