from node.loop cimport kernel
from node.loop.poller cimport Source


cdef class Acceptor(Source):
    cdef object _loop, _listening, _factory
    cdef int _family

    cpdef ready(self, int events)
