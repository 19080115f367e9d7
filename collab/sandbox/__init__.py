"""Work on documents in processes that may hang or die without anybody noticing.

==========  ==========================================================================
``jobs``    what runs there: functions from bytes to plain values, the only ones that use pycrdt (`collab.content`)
``stays``   documents that stay loaded there from one job to the next
``pool``    the processes: limits on time, memory and stack, restart, a bound on what waits
==========  ==========================================================================
"""
