cimport cython

from node.wire.pipeline cimport Pipeline

cdef class ServerConnection


cdef class Owner:
    cpdef from_server(self, ServerConnection server, bytes data)


cdef class ServerConnection:
    cdef public Owner owner
    cdef public object id, pool, lane, parameters, prepared, closed_why, write, close_transport
    cdef public object pause_reading, resume_reading
    cdef public Pipeline pipeline
    cdef public dict statuses
    cdef public bint dirty, tls, gone, writing_paused
    cdef public object pid
    cdef public bytes secret
    cdef public double created_at, used_at, checked_at, requested_at, lifetime_s
    cdef public int cancelling
    cdef public long long queries, transactions, rollbacks, errors, healthchecks, bytes_sent, bytes_received

    @cython.locals(owner=Owner, pipeline=Pipeline, out=bytes, at=Py_ssize_t)
    cpdef receive(self, bytes data)
    cpdef unsolicited(self, bytes data)
    cpdef learn(self)
