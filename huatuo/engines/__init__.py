"""what answers: local weights, remote servers, scripts for tests."""
