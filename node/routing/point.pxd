# Types for point.py. The C functions of hashing are called directly.

cimport cython

from node.routing cimport hashing, lexed as c_lexed

ctypedef const unsigned char *bytes_t
ctypedef unsigned char *out_t

cdef int _NOWHERE, _INTEGER, _STRING, _BIGINT, _VARCHAR, _UUID, _DIGITS, _SMALL_DIGITS
cdef long long _NONE
cdef unsigned long long _WORD
cdef bytes _HEX


cdef class Point:
    cdef readonly object topology
    cdef readonly object catalog
    cdef readonly bint bound
    cdef readonly int number
    cdef readonly bytearray known
    cdef readonly bint any_role
    cdef readonly bint writes
    cdef Py_ssize_t _ordinal
    cdef bint _negative
    cdef object _rule
    cdef unsigned int _shards
    cdef int _type
    cdef bint _hashed

    cpdef int shard(self, object values) except -2
    @cython.locals(marks=list, at=Py_ssize_t, kind=int, start=Py_ssize_t, end=Py_ssize_t, value="long long")
    cpdef int in_text(self, c_lexed.Lexed lexed) except -2
    @cython.locals(size=Py_ssize_t)
    cpdef int in_value(self, bytes data, Py_ssize_t start, Py_ssize_t end, bint binary, unsigned int oid) except -2
    @cython.locals(value="long long", key=bytes)
    cdef int _of_text(self, bytes data, Py_ssize_t start, Py_ssize_t end, int digits) except -2
    cdef int _of_integer(self, long long value) except -2
    cdef int _of_key(self, bytes key) except -2
    cdef int _of_rule(self, object key) except -2


@cython.locals(d=bytes_t, i=Py_ssize_t, c=int, value="long long")
cdef long long _whole(bytes data, Py_ssize_t start, Py_ssize_t end, int most)

@cython.locals(d=bytes_t, i=Py_ssize_t, value="long long")
cdef long long _signed(bytes data, Py_ssize_t start, Py_ssize_t size)

@cython.locals(d=bytes_t)
cdef bint _is_ascii(bytes data, Py_ssize_t start, Py_ssize_t end)

@cython.locals(d=bytes_t, i=Py_ssize_t)
cdef bint _is_plain(bytes sql, Py_ssize_t start, Py_ssize_t end, int flags)

@cython.locals(d=bytes_t, hexadecimal=bytes_t, key=bytearray, o=out_t, i=Py_ssize_t, k=Py_ssize_t, high=int, low=int)
cdef bytes _uuid(bytes data, Py_ssize_t start, Py_ssize_t end)
