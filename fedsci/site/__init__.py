"""What runs beside a lab's data: gate, ledger, rounds. It decides; the coordinator only asks."""
