cimport cython

from node.client cimport weight as c_weight
from node.routing cimport cache as c_cache, lexed as c_lexed, point as c_point


cdef class Shape:
    cdef readonly c_cache.Entry entry
    cdef readonly tuple statements
    cdef readonly object fault
    cdef public c_weight.Weight weight
    cdef public c_weight.Weights weighed_in
    cdef public c_point.Point point
    cdef readonly object pin
    cdef readonly tuple sets, resets
    cdef readonly bint resets_all, discards_all, forgets_statements, marks_dirty, redefines, alters
    cdef readonly bytes deallocates
    cdef readonly bint begins, begins_read_only, read_only, plain


cdef class Shapes:
    cdef readonly c_cache.StatementCache cache
    cdef readonly c_lexed.Lexed lexed
    cdef bytes _wrong
    cdef Shape _wrong_shape

    @cython.locals(entry=c_cache.Entry, found=Shape)
    cpdef Shape find(self, bytes sql)
