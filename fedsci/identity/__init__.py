"""Who is who between machines: certificates, join tokens, and the messages of enrolment; no network, no state."""
