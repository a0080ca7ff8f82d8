cimport cython

from node.client.session cimport Session
from node.loop.receiver cimport Receiver

cdef class ClientProtocol(Receiver):
    cdef public object transport, receiver, part
    cdef public bytes early
    cdef object _reception, _welcome, _login
    cdef Session _session
    cdef bint _local, _early_paused

    @cython.locals(session=Session)
    cpdef data_received(self, bytes data)
