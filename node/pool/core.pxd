cimport cython

from node.server.connection cimport ServerConnection


cdef class Waiter:
    cdef readonly object borrower
    cdef public double since
    cdef public bint gone
    cdef public bint queued


cdef class Waiters:
    cdef object _queue
    cdef readonly Py_ssize_t waiting

    @cython.locals(waiter=Waiter)
    cpdef append(self, Waiter waiter)
    @cython.locals(waiter=Waiter)
    cpdef Waiter popleft(self)
    @cython.locals(first=Waiter)
    cpdef give_up(self, Waiter waiter)


cdef class PoolCore:
    cdef public Py_ssize_t size
    cdef public list idle
    cdef public dict lent
    cdef public Py_ssize_t connecting
    cdef public Waiters waiters
    cdef public bint paused

    cpdef ServerConnection acquire(self)
    @cython.locals(at=Py_ssize_t, server=ServerConnection, idle=list)
    cpdef ServerConnection acquire_like(self, object parameters)
    @cython.locals(waiter=Waiter)
    cpdef Waiter first_waiter(self)
    cpdef put_back(self, ServerConnection server)
