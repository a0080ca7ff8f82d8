# Types for copy.py; only what the per-byte loops need.

cimport cython

cdef class CopyFormat:
    cdef public int kind
    cdef public Py_ssize_t key
    cdef public object key_name
    cdef public bytes delimiter
    cdef public bytes null
    cdef public bint header
    cdef public bytes quote
    cdef public bytes escape
    cdef public bytes default
    cdef public bint force_null
    cdef public bint force_not_null
    cdef public bint end_marker
    cdef public bint marker_alone

cdef class CopySplitter:
    cdef readonly bytes prelude
    cdef readonly bytes trailer
    cdef readonly bint ended
    cdef CopyFormat _options
    cdef Py_ssize_t _limit
    cdef int _kind
    cdef Py_ssize_t _key
    cdef int _delimiter
    cdef int _quote
    cdef int _escape
    cdef bint _marker
    cdef bint _alone
    cdef bint _header
    cdef bytearray _buffer
    cdef Py_ssize_t _at
    cdef Py_ssize_t _row
    cdef Py_ssize_t _field
    cdef Py_ssize_t _from
    cdef Py_ssize_t _to
    cdef bint _quoted
    cdef bint _escaped
    cdef bint _saw_quote
    cdef bint _saw_escape
    cdef int _line_end

    @cython.locals(found=int, row=bytes, rows=list, buffer=bytearray)
    cdef list _lines(self, bint last)
    @cython.locals(
        data="unsigned char *", at=Py_ssize_t, field=Py_ssize_t, key=Py_ssize_t, quoted=bint, escaped=bint, csv=bint,
        delimiter=int, quote=int, escape=int, found=int, c=int, width=Py_ssize_t, ended=int,
    )
    cdef int _scan(self, bytearray buffer, Py_ssize_t size, bint last) except -1
    cdef Py_ssize_t _line_width(self, int c, bint lf_follows) except -1
    cdef int _end_marker(self, Py_ssize_t at, Py_ssize_t size, bint last) except -1
    cdef int _csv_marker(self, Py_ssize_t at, Py_ssize_t size, bint last) except -1
    @cython.locals(options=CopyFormat, raw=bytes, value=bytes)
    cdef bytes _value(self, bytearray buffer)
    @cython.locals(rows=list, buffer=bytearray, size=Py_ssize_t, at=Py_ssize_t, end=Py_ssize_t)
    cdef list _tuples(self)
    @cython.locals(data="unsigned char *", fields=int, at=Py_ssize_t, n=int, length=Py_ssize_t)
    cdef Py_ssize_t _tuple(self, bytearray buffer, Py_ssize_t start, Py_ssize_t size) except -2
    @cython.locals(buffer=bytearray)
    cdef Py_ssize_t _binary_header(self, Py_ssize_t size) except -1
