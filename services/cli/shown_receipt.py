"""Says on stderr what a request cost, as much of it as was asked for."""

from services.cli.cost import receipt_table, remarks, summary
from services.cli.known import Known
from services.cli.receipt_flag import Amount
from services.cli.report import Report
from services.cli.request import GenerateResult
from services.cli.short_receipt import short_receipt


def show_receipt(outcome: GenerateResult, amount: Amount, known: Known, report: Report) -> None:
    """Show it; `auto` is what a terminal has place for."""
    if amount == "auto":
        amount = "short" if report.console.is_terminal else "full"
    if amount == "short":
        report.note(short_receipt(outcome, known))
    elif amount == "full":
        receipt = outcome.completion.receipt
        report.line(f"\n{summary(outcome)}")
        report.console.print(receipt_table(receipt))
        for remark in remarks(receipt, known):
            report.line(remark)
