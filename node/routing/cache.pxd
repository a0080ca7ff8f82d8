cimport cython

from node.routing cimport lexed as c_lexed

cdef Py_ssize_t _TEXT_LIMIT_BYTES


cdef class Entry:
    cdef public bytes shape
    cdef public tuple statements
    cdef public object traits
    cdef public long long hits, direct, multi


cdef class StatementCache:
    cdef public Py_ssize_t limit
    cdef public int flags
    cdef public long long hits, misses
    cdef readonly c_lexed.Lexed lexed
    cdef dict _entries, _texts
    cdef bytes _text
    cdef Entry _entry

    @cython.locals(entry=Entry, known=tuple, lexed=c_lexed.Lexed)
    cpdef Entry find(self, bytes sql)
    cdef _keep(self, bytes sql, Entry entry, c_lexed.Lexed lexed)
