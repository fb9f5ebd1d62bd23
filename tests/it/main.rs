// The tests that need a process.
