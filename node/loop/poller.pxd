cimport cython

from node.loop cimport kernel


cdef class Source:
    cdef public int number

    cpdef ready(self, int events)


cdef class Poller:
    cdef public bint summoned
    cdef public bytearray room
    cdef object _epoll, _failed
    cdef int _number
    cdef bytearray _answers
    cdef dict _sources
    cdef list _last

    cpdef change(self, int number, int events)
    cpdef add(self, Source source, int events)
    cpdef forget(self, Source source)
    cpdef at_turn_end(self, call)
    @cython.locals(left=double, until=double, forever=bint, sources=dict, answers=bytearray, others=list)
    @cython.locals(source=Source, number=int, events=int, count=int, index=int)
    cpdef list turns(self, timeout_s)
    @cython.locals(last=list)
    cdef _end_turn(self)
