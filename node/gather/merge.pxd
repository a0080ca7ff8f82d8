# Types for merge.py; only what the per-row loops need.

cimport cython

cdef int _plain
cdef int _signed
cdef bytes _invert
cdef list _flip

cdef class KeySpec:
    cdef public Py_ssize_t column
    cdef public int kind
    cdef public object make
    cdef public bint descending
    cdef public bytes null

cdef class Rows:
    cdef readonly Py_ssize_t columns
    cdef readonly Py_ssize_t visible
    cdef long long[::1] _starts
    cdef long long[::1] _sizes
    cdef bytes _head
    cdef dict _prefixes

    @cython.locals(data="const unsigned char *", size=Py_ssize_t, at=Py_ssize_t, n=Py_ssize_t, length=Py_ssize_t)
    cpdef object open(self, bytes body)
    @cython.locals(end=Py_ssize_t, prefix=bytes)
    cpdef bytes message(self, bytes body)
    @cython.locals(n=Py_ssize_t, parts=list)
    cpdef bytes key(self, bytes body, list specs)
    @cython.locals(data="const unsigned char *", column=Py_ssize_t, size=Py_ssize_t, start=Py_ssize_t, part=bytes)
    cdef bytes _part(self, bytes body, KeySpec spec)

cdef class Merge:
    cdef Rows _rows
    cdef list _sort
    cdef list _distinct
    cdef bint _verbatim
    cdef list _queues
    cdef list _sizes
    cdef list _finished
    cdef list _heap
    cdef Py_ssize_t _missing
    cdef set _seen
    cdef long long _seen_bytes
    cdef long long _left
    cdef long long _skip
    cdef list _out
    cdef long long _out_bytes
    cdef long long _buffer_bytes
    cdef long long _distinct_limit_bytes
    cdef readonly long long rows
    cdef readonly bint complete

    @cython.locals(rows=Rows, mark=bytes, key=bytes, message=bytes)
    cpdef object feed(self, Py_ssize_t shard, bytes body)
    @cython.locals(data="const unsigned char *", size=Py_ssize_t, at=Py_ssize_t, length=Py_ssize_t, counted=Py_ssize_t)
    cpdef object feed_rows(self, Py_ssize_t shard, bytes messages)
    cpdef object finish(self, Py_ssize_t shard)
    cpdef bytes take(self)
    @cython.locals(heap=list, shard=Py_ssize_t, item=tuple, message=bytes)
    cdef object _advance(self)
    cdef object _emit(self, bytes message, bytes mark)
