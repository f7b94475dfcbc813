"""What looks at a run and changes nothing: its metrics, its status, and the page of both."""
