"""the school: everything that makes models; reads and writes files, and shares no code with the app's pages."""
