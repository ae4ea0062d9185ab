; y = softmax(x) along the last axis, float32, by the chip's own formulas: e = exp(x - max(x)), y = e * (1 / sum(e)).
;
;   llmcc run examples/asm/softmax.s --input x=x.npy --output y=y.npy
;
; Blocks of ROWS rows in two buffers: block i+1 is loaded while block i is computed.
.chip "edge"
.equ ROWS=32, COLS=200, BLOCKS=3
.equ BLOCK=ROWS*COLS*4                  ; bytes

.entry name=main, pc=main
.input name=x, shape=[ROWS*BLOCKS, COLS], dtype=float32
.output name=y, shape=[ROWS*BLOCKS, COLS], dtype=float32

.buffer name=block, space=sram, bytes=2*BLOCK
.buffer name=maxima, space=sram, bytes=ROWS*4
.buffer name=totals, space=sram, bytes=ROWS*4

.equ X_DRAM=v1, Y_DRAM=v2, X=v3, TOP=v4, SUM=v5, SUM_ROW=v6

main:
  vset v=X_DRAM, space=dram, region=in, dtype=f32, base=x, rs=COLS
  vinc v=X_DRAM, level=0, inc=BLOCK
  vset v=Y_DRAM, space=dram, region=out, dtype=f32, base=y, rs=COLS
  vinc v=Y_DRAM, level=0, inc=BLOCK
  vset v=X, space=sram, dtype=f32, base=block, rs=COLS
  vinc v=X, level=0, inc=BLOCK, mod=2
  vset v=TOP, space=sram, dtype=f32, base=maxima, rs=1, cs=0      ; one value per row, repeated along it
  vset v=SUM, space=sram, dtype=f32, base=totals, rs=1, cs=0
  vset v=SUM_ROW, space=sram, dtype=f32, base=totals

  loop level=0, len=done, count=BLOCKS
    lda d=X, a=X_DRAM, rows=ROWS, cols=COLS @ sto<=1              ; y of block i-2 has left this buffer
    vred f=max, d=TOP, a=X, rows=ROWS, cols=COLS @ lda<=0         ; the vop before it has waited for exp i-1, which reads the maxima
.include "softmax.inc"
    vop f=mul, d=X, a=X, b=SUM, rows=ROWS, cols=COLS @ act<=0
    sto d=Y_DRAM, a=X, rows=ROWS, cols=COLS @ vec<=0
done:
  halt
