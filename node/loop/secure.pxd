cimport cython

from node.loop.receiver cimport Receiver


cdef class Secure(Receiver):
    cdef object _transport, _incoming, _outgoing, _ssl, _protocol, _shaking, _error
    cdef Receiver _receiver
    cdef bint _closing

    cdef _shake(self)
    cpdef data_received(self, bytes data)
    @cython.locals(pieces=list, ended=bint)
    cdef _decrypt(self)
    cpdef write(self, data)
    cdef _send(self)
    cdef _break(self, error)
