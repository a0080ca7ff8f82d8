cimport cython

from node.client.riding cimport Riding
from node.pool.lending cimport Lending
from node.server.connection cimport ServerConnection
from node.stats.pool_counters cimport PoolCounters
from node.wire.pipeline cimport Pipeline

cdef int _READY, _CLOSED, _IDLE, _FULL

cdef class Linked(Riding):
    cdef public ServerConnection server
    cdef public double linked_at
    cdef public bint entered, discarding, torn_copy, must_ask, redefined, changed_schema, fresh, begun
    cdef public long long errors_before, bytes_before, kept_units
    cdef public object shard, links, wrote, story, cursors, portals, catalog
    cdef public bytes kept, withheld
    cdef public Py_ssize_t kept_at, kept_end, stop_at

    @cython.locals(pipeline=Pipeline)
    cpdef from_server(self, ServerConnection server, bytes data)
    @cython.locals(server=ServerConnection, pipeline=Pipeline, now=double, took=double, pool=Lending,
                   counters=PoolCounters)
    cpdef settle(self)
