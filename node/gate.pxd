cdef class Gate:
    cdef public object database
    cdef public bint is_open
    cdef public set reasons
    cdef public long long running
    cdef public object waiting
    cdef public list drained

    cpdef bint enter(self)
    cpdef leave(self)
