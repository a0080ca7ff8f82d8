cimport cython

ctypedef const unsigned char *bytes_t
ctypedef unsigned int u32

cdef int _PARSE, _BIND, _DESCRIBE, _EXECUTE, _CLOSE, _SYNC


cdef class Batch:
    cdef readonly bint parsed
    cdef readonly Py_ssize_t name, name_end, sql, sql_end, start, end
    cdef readonly bint binary
    cdef Py_ssize_t _types, _formats, _values
    cdef int _type_count, _format_count, _value_count

    @cython.locals(d=bytes_t, bound=bint, letter=int, size="long long", stop=Py_ssize_t)
    cpdef bint read(self, bytes buffer, Py_ssize_t at, Py_ssize_t end)
    @cython.locals(at=Py_ssize_t, code=int, size="long long")
    cpdef bint find(self, bytes buffer, int number)
    cpdef u32 type_of(self, bytes buffer, int number)
    cdef bint _parse(self, bytes_t buffer, Py_ssize_t at, Py_ssize_t stop)
    @cython.locals(name_end=Py_ssize_t, size="long long", i=Py_ssize_t, formats=int, count=int)
    cdef bint _bind(self, bytes_t buffer, Py_ssize_t at, Py_ssize_t stop)


@cython.locals(d=bytes_t)
cdef u32 _size(bytes_t buffer, Py_ssize_t at)

@cython.locals(d=bytes_t)
cdef Py_ssize_t _string_end(bytes_t buffer, Py_ssize_t at, Py_ssize_t stop)
