cimport cython

cdef int _SYNC, _QUERY, _SKIP, _SKIP_QUERY, _FAKE_PARSE_COMPLETE, _FAKE_CLOSE_COMPLETE, _COPY_END
cdef int _NOTHING, _CONTINUED, _TOO_LONG, _RING_ENTRIES
cdef long long _MASK
cdef unsigned long long _HELD_BYTES, _MAX_LENGTH
cdef dict _FAKES

cdef unsigned int _number(const unsigned char *p, Py_ssize_t at) noexcept

cdef class Requests:
    cdef public unsigned long long limit
    cdef public bint hold_copy
    cdef public bytes buffer
    cdef public Py_ssize_t at, start, end, rest, need, torn_bytes
    cdef public list torn
    cdef public unsigned long long length
    cdef public Py_ssize_t count, text_at, text_end, parse_end, bind_at, bind_end, name_at, name_end

    cpdef feed(self, bytes data)
    cpdef Py_ssize_t waiting_bytes(self)
    cpdef hold(self, Py_ssize_t size)
    @cython.locals(
        p="const unsigned char *", n=Py_ssize_t, at=Py_ssize_t, end=Py_ssize_t, letter=int, length="unsigned long long"
    )
    cpdef int next(self)
    @cython.locals(
        p="const unsigned char *", n=Py_ssize_t, at=Py_ssize_t, end=Py_ssize_t, letter=int, length="unsigned long long"
    )
    cpdef Py_ssize_t unit(self)
    @cython.locals(
        p="const unsigned char *", n=Py_ssize_t, end=Py_ssize_t, letter=int, length="unsigned long long", executed=bint
    )
    cpdef bint batch(self, Py_ssize_t at)
    cpdef give_back(self, bytes unit)


cdef class Pipeline:
    cdef public long long sent, done
    cdef public int tx_status, copy_in, broken
    cdef public bint batch, failed, shared, answered
    cdef public long long errors, units, tag, rows_inserted, rows_updated, rows_deleted
    cdef public bytes skip_error, last_error
    cdef public list statuses
    cdef public Py_ssize_t stopped_at, whole
    cdef public bytes held
    cdef public Py_ssize_t rest
    cdef public bint rest_skipped
    cdef long long[::1] ordinals
    cdef unsigned char[::1] kinds
    cdef list owners
    cdef long long head, tail

    @cython.locals(slot=Py_ssize_t)
    cpdef push(self, int kind, long long ordinal, object owner)
    cpdef int room(self)
    cpdef bint idle(self)
    cpdef owe_query(self, object owner)
    cpdef owe_skipped_query(self, object owner)
    cpdef owe(self)
    cpdef owe_skipped(self, object owner)
    cpdef bint owe_fake(self, int kind, object owner)
    cpdef owe_sync(self, object owner)
    cpdef owe_unit(self, long long count, object owner)
    cpdef copy_ended(self)
    cpdef object head_owner(self)
    @cython.locals(at="long long", found=list)
    cpdef list all_owners(self)
    @cython.locals(at="long long", any_found=bint)
    cpdef bint change_owner(self, object owner, object to)
    @cython.locals(p="const unsigned char *", n=Py_ssize_t, pos=Py_ssize_t, run=Py_ssize_t, end=Py_ssize_t,
                   letter=int, length="unsigned long long", slot=Py_ssize_t, head=int, kind=int, skipped=bint, out=list,
                   kept=Py_ssize_t, other=bint)
    cpdef bytes replies(self, bytes data, Py_ssize_t start)
    @cython.locals(p="const unsigned char *", letter=int, rows="long long", scale="long long")
    cpdef count_rows(self, bytes data, Py_ssize_t at, Py_ssize_t end)
    @cython.locals(slot=Py_ssize_t)
    cpdef fail(self)
    @cython.locals(first="long long", at="long long", syncs="long long")
    cpdef swallow(self, int keep)
