from node.server.connection cimport Owner

cdef class Rider(Owner):
    cdef public bint writing_paused

    cpdef bint would_share(self, object parameters)
    cpdef invited(self, object lane)
    cpdef lane_bytes(self, bytes data)
    cpdef lane_reply(self, bytes data, double now, double took_s, Py_ssize_t size)
    cpdef lane_error(self)
    cpdef put_off(self, bint blamed)
    cpdef lane_lost(self, object fault, bint said)
