cimport cython

from node.wire.reply_queue cimport ReplyQueue

cdef int _SYNC, _QUERY, _SKIP, _SKIP_QUERY, _FAKE_PARSE_COMPLETE, _FAKE_CLOSE_COMPLETE, _COPY_END
cdef long long _MASK
cdef unsigned long long _HELD_BYTES, _MAX_LENGTH
cdef dict _FAKES

cdef unsigned int _number(const unsigned char *p, Py_ssize_t at) noexcept

cdef class Pipeline(ReplyQueue):
    cdef public int tx_status, broken
    cdef public bint shared, answered
    cdef public long long errors, units, tag, rows_inserted, rows_updated, rows_deleted
    cdef public bytes skip_error, last_error
    cdef public list statuses
    cdef public Py_ssize_t stopped_at, whole
    cdef public bytes held
    cdef public Py_ssize_t rest
    cdef public bint rest_skipped

    cpdef bint idle(self)
    @cython.locals(p="const unsigned char *", n=Py_ssize_t, pos=Py_ssize_t, run=Py_ssize_t, end=Py_ssize_t,
                   letter=int, length="unsigned long long", slot=Py_ssize_t, head=int, kind=int, skipped=bint, out=list,
                   kept=Py_ssize_t, other=bint)
    cpdef bytes replies(self, bytes data, Py_ssize_t start)
    @cython.locals(p="const unsigned char *", letter=int, rows="long long", scale="long long")
    cpdef count_rows(self, bytes data, Py_ssize_t at, Py_ssize_t end)
