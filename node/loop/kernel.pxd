# What kernel.py does, by C: the same names, system calls, results and errors. See there.

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_FromStringAndSize, PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals, PyErr_SetFromErrno
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint32_t


cdef extern from "<sys/socket.h>" nogil:
    int MSG_NOSIGNAL, SHUT_WR, SOCK_CLOEXEC, SOCK_NONBLOCK
    ssize_t socket_receive "recv"(int number, void* into, size_t limit, int flags)
    ssize_t socket_send "send"(int number, const void* data, size_t count, int flags)
    int socket_shut_down "shutdown"(int number, int how)
    int socket_accept "accept4"(int number, void* address, void* size, int flags)


cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        int fd

    cdef struct epoll_event:
        uint32_t events
        epoll_data_t data

    int epoll_wait(int number, epoll_event* into, int limit, int timeout_ms)


cdef enum:
    ROOM = 512  # EVENTS_LIMIT
    LONGEST_WAIT_MS = 3_600_000  # far below what an int holds; whoever waits longer asks again


cdef inline bytearray answers():
    return PyByteArray_FromStringAndSize(NULL, ROOM * sizeof(epoll_event))


cdef inline int wait(object epoll, int number, bytearray into, double timeout_s) except -1:
    cdef epoll_event* found = <epoll_event*> PyByteArray_AS_STRING(into)
    cdef int count
    cdef int timeout_ms = -1
    if timeout_s >= 0:
        # up to the next millisecond: a timer that is asked for is due when this returns
        timeout_ms = LONGEST_WAIT_MS if timeout_s * 1000 >= LONGEST_WAIT_MS else <int> (timeout_s * 1000 + 0.999999)
    if timeout_ms == 0:
        count = epoll_wait(number, found, ROOM, 0)
    else:
        with nogil:
            count = epoll_wait(number, found, ROOM, timeout_ms)
    if count < 0:
        if errno == EINTR:
            PyErr_CheckSignals()
            return 0
        PyErr_SetFromErrno(OSError)
    return count


cdef inline int descriptor(bytearray found, int index):
    return (<epoll_event*> PyByteArray_AS_STRING(found))[index].data.fd


cdef inline int events(bytearray found, int index):
    return <int> (<epoll_event*> PyByteArray_AS_STRING(found))[index].events


cdef inline bytes receive(int number, bytearray room):
    cdef ssize_t count = socket_receive(number, PyByteArray_AS_STRING(room), PyByteArray_GET_SIZE(room), 0)
    if count >= 0:
        return PyBytes_FromStringAndSize(PyByteArray_AS_STRING(room), count)
    if errno == EAGAIN or errno == EINTR:
        return None
    PyErr_SetFromErrno(OSError)


cdef inline Py_ssize_t send(int number, object data) except -1:
    cdef ssize_t count
    cdef const unsigned char[::1] view
    if type(data) is bytes:
        count = socket_send(number, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), MSG_NOSIGNAL)
    else:
        view = data
        count = socket_send(number, &view[0], view.shape[0], MSG_NOSIGNAL) if view.shape[0] else 0
    if count >= 0:
        return count
    if errno == EAGAIN or errno == EINTR:
        return 0
    PyErr_SetFromErrno(OSError)


cdef inline void shut_down(int number) noexcept:
    socket_shut_down(number, SHUT_WR)


cdef inline int accept(object listening, int number) except -2:
    cdef int connected = socket_accept(number, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)
    if connected >= 0 or errno == EAGAIN or errno == EINTR:
        return connected
    PyErr_SetFromErrno(OSError)
