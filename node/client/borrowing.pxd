cimport cython

from node.client.forwarding cimport Forwarding
from node.gate cimport Gate
from node.pool.lending cimport Lending
from node.server.connection cimport ServerConnection

cdef int _BIND, _DESCRIBE, _PARSE, _QUERY, _READY, _WAITING, _SLOW, _RIDING

cdef class Borrowing(Forwarding):
    cdef public object account, waiter, hints
    cdef public Gate gate
    cdef public bint asking
    cdef public int moved
    cdef public double wait_time_s

    cpdef bint enter(self)
    cpdef leave(self)
    @cython.locals(server=ServerConnection)
    cpdef bint acquire(self, Lending pool)
    cpdef bint link(self, ServerConnection server)
