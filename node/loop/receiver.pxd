cdef class Receiver:
    cpdef data_received(self, bytes data)
