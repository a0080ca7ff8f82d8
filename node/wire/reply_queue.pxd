cimport cython

cdef int _SYNC, _QUERY, _SKIP, _SKIP_QUERY, _COPY_END, _RING_ENTRIES
cdef long long _MASK

cdef class ReplyQueue:
    cdef public long long sent, done
    cdef public int copy_in
    cdef public bint batch, failed
    cdef long long[::1] ordinals
    cdef unsigned char[::1] kinds
    cdef list owners
    cdef long long head, tail

    @cython.locals(slot=Py_ssize_t)
    cpdef push(self, int kind, long long ordinal, object owner)
    cpdef int room(self)
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
    @cython.locals(slot=Py_ssize_t)
    cpdef fail(self)
    @cython.locals(first="long long", at="long long", syncs="long long")
    cpdef swallow(self, int keep)
