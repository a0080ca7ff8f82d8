from node.loop.receiver cimport Receiver
from node.server.connection cimport ServerConnection

cdef class ServerProtocol(Receiver):
    cdef public ServerConnection connection
    cdef public object transport

    cpdef data_received(self, bytes data)
