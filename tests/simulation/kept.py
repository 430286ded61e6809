"""Seeds that have found a fault of the app, and which. With another generator of scenes they are
other worlds: then the faults are put back once, to find the seeds that find them now."""

KEPT = {
    2: "the idle clock jumped back when a request gave up waiting",
    356: "a request was sent once more to a llama-server that was being stopped",
    61298: "another run had the task while its key was stored, and the instance said it had failed",
}
