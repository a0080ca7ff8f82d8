cimport cython

from node.client.prepared cimport Prepared
from node.client.shape cimport Shape
from node.client.statements cimport Statements
from node.client.weight cimport Weight, Weights
from node.database cimport Layout
from node.pool.lane cimport Lane
from node.pool.lanes cimport Lanes
from node.pool.lending cimport Lending
from node.stats.pool_counters cimport PoolCounters
from node.wire.requests cimport Requests

cdef int _BIND, _PARSE, _QUERY, _TX_IDLE, _READY, _RIDING

cdef double _LAGS

cdef class Riding(Statements):
    cdef public Requests requests
    cdef public int state
    cdef public Lending pool
    cdef public bint reading_paused
    cdef public bytes begin_message
    cdef public bint tx_failed
    cdef public Lane lane
    cdef public bytes unit
    cdef public Weight weight
    cdef public object offer
    cdef public int sent_again
    cdef public bint blamed
    cdef public double active_since, transaction_since, last_request, query_time_s, transaction_time_s
    cdef public long long queries, transactions, errors, bytes_sent

    cpdef advance(self)
    cpdef waited(self)
    cpdef leave(self)
    cpdef resume_client(self)
    cpdef close(self)
    @cython.locals(raw="const unsigned char *")
    cpdef Shape shape_of_query(self, bytes buffer, Py_ssize_t start, Py_ssize_t end)
    @cython.locals(requests=Requests, buffer=bytes, letter=int, shape=Shape, weight=Weight, weights=Weights,
                   lanes=Lanes, lane=Lane, since=double, at=Py_ssize_t, name_at=Py_ssize_t, name_end=Py_ssize_t,
                   prepared=Prepared, known=Shape, layout=Layout, raw="const unsigned char *",
                   data=bytes, length=Py_ssize_t, name=bytes)
    cpdef bint share(self, Lending pool, Py_ssize_t start, Py_ssize_t end)
    @cython.locals(weight=Weight, took=double, pool=Lending, counters=PoolCounters)
    cpdef lane_reply(self, bytes data, double now, double took_s, Py_ssize_t size)
    cpdef double on_time(self, double took_s)
    cpdef off_the_lane(self)
    cpdef go_on(self)
