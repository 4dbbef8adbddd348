"""``fedlens view``: pages for the clinician, one case at a time, and for the study lead, one study."""
