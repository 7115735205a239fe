// Prints the words of a memory that $readmemh reads.
module dump_memory;
    parameter FILE = "a.mem";
    parameter WORD_BITS = 8;
    parameter WORDS = 1;

    reg [WORD_BITS-1:0] memory [0:WORDS-1];
    integer i;

    initial begin
        $readmemh(FILE, memory);
        for (i = 0; i < WORDS; i = i + 1) $display("%h", memory[i]);
    end
endmodule
